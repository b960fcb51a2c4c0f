"""MODEL_CARD.md: the bundle for a person who looks into the folder."""

from __future__ import annotations

from muelle.bundle.manifest import Manifest
from muelle.bundle.profile import Profile


def render_card(manifest: Manifest, profile: Profile, description: str) -> str:
    """Return the model card as Markdown.

    Parameters
    ----------
    manifest : Manifest
        Its `files` are not used: the card is one of them.
    profile : Profile
        For the table of inputs.
    description : str
        The author's own words; may be empty.
    """
    facts = {
        "Estimator": f"`{manifest.estimator}`",
        "Task": manifest.task,
        "Created": manifest.created,
        "Code": f"`{manifest.git_commit}`" if manifest.git_commit else "not recorded",
        "Training data": f"`{manifest.data_digest}`" if manifest.data_digest else "not recorded",
        "Engines": ", ".join(manifest.engines),
        "ONNX": manifest.onnx.reason,
        "Reference rows": str(profile.rows),
    }
    lines = [f"# {manifest.name} {manifest.version}", ""]
    if description:
        lines += [description.strip(), ""]
    lines += ["| | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in facts.items()), ""]
    if manifest.scores:
        lines += ["## Scores", "", "| score | value |", "|---|---|"]
        lines += [f"| {_cell(key)} | {value:.6g} |" for key, value in manifest.scores.items()]
        lines.append("")
    lines += ["## Inputs", "", "| name | dtype | missing allowed | reference |", "|---|---|---|---|"]
    for feature in manifest.signature.inputs:
        column = profile.inputs[feature.name]
        if column.median is not None:
            reference = f"{column.minimum:.4g} … {column.median:.4g} … {column.maximum:.4g}"
        else:
            reference = ", ".join(str(value) for value in column.values[:5])
        lines.append(
            f"| {_cell(feature.name)} | {feature.dtype} | {'yes' if feature.nullable else 'no'} | {_cell(reference)} |"
        )
    lines += ["", "## Outputs", "", "| name | dtype | shape | classes |", "|---|---|---|---|"]
    for output in manifest.signature.outputs:
        classes = "" if output.classes is None else ", ".join(str(label) for label in output.classes[:20])
        lines.append(f"| {output.name} | {output.dtype} | {list(output.shape)} | {_cell(classes)} |")
    if manifest.parameters:
        lines += ["", "## Training parameters", "", "| name | value |", "|---|---|"]
        lines += [f"| {_cell(key)} | {_cell(str(value))} |" for key, value in manifest.parameters.items()]
    lines += ["", "## Libraries", "", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
