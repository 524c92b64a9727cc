"""The review as Markdown: a comment that reads well without pictures."""

from stages.review import Review
from stages.review.render import environment, values
from stages.review.text import code, escaped

LIMIT = 50_000  # bytes; GitHub refuses a comment of more than 65,536 characters


def render(review: Review) -> str:
    """Markdown of at most `LIMIT` bytes: lists are cut before anything else."""
    templates = environment()
    templates.filters |= {"escaped": escaped, "code": code}
    template = templates.get_template("comment.md.jinja")
    images = review.comparison.images.set_index("pair_id").to_dict("index")
    changed = [row for row in review.metrics if row.has_changed]
    facts = values(review) | {"images": images, "changed": changed}
    text = ""
    for most in (60, 30, 15, 8, 4, 2, 1):
        text = template.render(most=most, **facts)
        if len(text.encode()) <= LIMIT:
            return text
    return text.encode()[: LIMIT - 1].decode(errors="ignore") + "\n"
