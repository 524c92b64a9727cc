"use strict";
// One image at a time: send it, draw its outline, say what was found.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const urls = [];
let model = null;
let asked = null; // the request under way

const url = (base64, type) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  urls.push(URL.createObjectURL(new Blob([bytes], { type })));
  return urls[urls.length - 1];
};

const list = (target, rows) => {
  target.replaceChildren();
  for (const [name, value] of rows) {
    const term = document.createElement("dt");
    const told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value;
    target.append(term, told);
  }
};

const element = (name, attributes) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

const percent = (share) => `${(100 * share).toFixed(1)} %`;

const draw = (found, name) => {
  const picture = $("picture");
  const size = { width: found.width, height: found.height };
  picture.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  picture.setAttribute(
    "aria-label",
    `${name} with the outline of what was found: ${percent(found.lung_area_fraction)} of it`,
  );
  picture.replaceChildren(
    element("image", { href: url(found.view, "image/png"), preserveAspectRatio: "none", ...size }),
    ...["area", "halo", "line"].map((kind) => element("path", { class: kind, d: found.outline })),
  );
  $("name").textContent = `${name}, ${found.width} × ${found.height} pixels`;
  $("figure").hidden = false;
  $("main").classList.add("shown");
};

const tell = (found, name) => {
  const area = found.lung_area_cm2 === null ? "" : `, ${found.lung_area_cm2.toFixed(1)} cm²`;
  list($("facts"), [
    [model && !model.is_of_lungs ? "Area found" : "Lung area", `${percent(found.lung_area_fraction)} of the image${area}`],
    ["Separate regions", String(found.components)],
    ["Mean confidence", found.mean_confidence === null ? "nothing found" : percent(found.mean_confidence)],
    ["Threshold", String(found.threshold)],
  ]);
  const notes = $("warnings").querySelector("ul");
  notes.replaceChildren(
    ...found.warnings.map((warning) => {
      const item = document.createElement("li");
      item.textContent = warning;
      return item;
    }),
  );
  $("warnings").hidden = !found.warnings.length;
  const link = $("download");
  link.href = url(found.mask, "image/png");
  link.download = `${name.replace(/\.[^.]*$/, "") || "image"}-mask.png`;
  $("result").hidden = false;
};

const complain = (sentence) => {
  $("problem").textContent = sentence;
  $("problem").hidden = !sentence;
};

const answer = async (file, signal) => {
  if (model && file.size > model.max_bytes) {
    throw new Error(`the image has ${file.size} bytes, more than the ${model.max_bytes} allowed`);
  }
  const reply = await fetch("predict?view=true", {
    method: "POST",
    headers: { Accept: "application/json", "Content-Type": "application/octet-stream" },
    body: file,
    signal,
  });
  const told = await reply.json();
  if (!reply.ok) throw new Error(told.detail);
  return told;
};

const open = async (file) => {
  if (asked) asked.abort();
  const mine = (asked = new AbortController());
  const main = $("main");
  main.classList.add("busy");
  complain("");
  $("status").textContent = `Looking at ${file.name} …`;
  try {
    const found = await answer(file, mine.signal);
    for (const old of urls.splice(0)) URL.revokeObjectURL(old);
    draw(found, file.name);
    tell(found, file.name);
    $("status").textContent = found.outline
      ? "The yellow outline is what the model found."
      : "The model found nothing in this image.";
  } catch (error) {
    if (mine.signal.aborted) return;
    const gone = error instanceof TypeError;
    $("figure").hidden = $("result").hidden = true;
    main.classList.remove("shown");
    $("status").textContent = "";
    complain(`${file.name}: ${gone ? "the server does not answer; is it still running?" : error.message}`);
  }
  if (asked === mine) main.classList.remove("busy");
};

const first = (files) => {
  if (files.length) open(files[0]);
  if (files.length > 1) complain(`One image at a time: this is the first of ${files.length}.`);
};

$("file").addEventListener("change", (event) => {
  first(Array.from(event.target.files));
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => first(Array.from(event.clipboardData.files)));
const carries = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  $("main").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("main").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  $("main").classList.remove("over");
  first(Array.from(event.dataTransfer.files));
});
$("show").addEventListener("change", (event) => {
  $("picture").dataset.show = event.target.value;
});
$("picture").dataset.show = "outline";

const introduce = async () => {
  model = await (await fetch("model")).json();
  if (!model.is_of_lungs) $("title").textContent = "What the model finds in an image";
  $("drawn").hidden = model.data.source !== "phantom";
  const { dataset, version, licence } = model.data;
  const rows = [
    ["Training data", dataset],
    ["Version", version],
    ["Licence", licence],
    ["Mask definition", model.mask_definition],
    ["Input", `${model.image_size} × ${model.image_size} pixels, ${model.image_channels === 1 ? "grey" : "colour"}`],
    ["SHA-256", model.sha256],
  ];
  list($("model"), rows.filter(([, value]) => value));
  $("takes").textContent = `PNG, JPEG, TIFF, BMP or DICOM, up to ${Math.floor(model.max_bytes / 2 ** 20)} MiB`;
};
$("curl").textContent = `curl --data-binary @image.png ${location.origin}/predict > mask.png`;
introduce().catch(() => complain("The server does not answer; is it still running?"));
