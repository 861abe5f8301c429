"""Every setting of config.yaml as a Markdown document."""

from __future__ import annotations

import json

from bdiff_np import config
from bdiff_np.config import config_lines


def reference(family: str | None = None, net: str | None = None) -> str:
    """The settings of a family and a net, the defaults for None, of training and of data."""
    lines = [
        "# Settings",
        "",
        "What `config.yaml` can say. Each has a default; `--set section.name=value` overrules the file for one "
        "training.",
    ]
    for section, schema in config.schema(family, net).sections.items():
        lines += [
            "",
            f"## {section}",
            "",
            (schema.__doc__ or "").strip(),
            "",
            "| name | value | default | meaning |",
            "|---|---|---|---|",
        ]
        for name, field in schema.model_fields.items():
            values = config_lines.expects(field.annotation, field.metadata).replace("|", "or")
            default = json.dumps(field.default) if not isinstance(field.default, str) else field.default
            lines.append(f"| `{name}` | {values} | `{default}` | {field.description} |")
    return "\n".join(lines)
