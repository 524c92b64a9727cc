"use strict";
// The OpenAPI description as a page: FastAPI's own loads its scripts from another host.
const made = (name, text, ...children) => {
  const element = document.createElement(name);
  element.textContent = text;
  element.append(...children);
  return element;
};

const rows = (pairs) => {
  const list = document.createElement("dl");
  for (const [name, text] of pairs) list.append(made("dt", name), made("dd", text));
  return list;
};

const schema = (api, content) => {
  const name = ((content?.["application/json"]?.schema || {}).$ref || "").split("/").pop();
  const fields = Object.entries(api.components.schemas[name]?.properties || {});
  return fields.map(([key, field]) => [key, field.description || field.type || ""]);
};

const show = (api) => {
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, call] of Object.entries(methods)) {
      const answers = Object.entries(call.responses).map(([status, a]) => [
        status,
        [a.description, ...Object.keys(a.content || {})].join(", "),
      ]);
      document.getElementById("docs").append(
        made("section", "", made("h2", `${method.toUpperCase()} ${path}`), made("p", call.description || call.summary),
          rows((call.parameters || []).map((p) => [`${p.in} ${p.name}`, `default ${p.schema.default}`])),
          rows(answers), rows(schema(api, call.responses[200]?.content))),
      );
    }
  }
};
fetch("openapi.json").then(async (reply) => show(await reply.json()));
