"""README.md of an export: how transformers has to read it so that it sees what training saw.

Nothing that a configuration may say chooses the class of transformers' image processor: beside torchvision
`AutoImageProcessor` takes another one (5.23, `_resolve_backend`), so whoever loads an export has to ask for ours.
"""

from __future__ import annotations

TEXT = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
---
# {kind}

Trained and exported by vlmill. It was written and tested with transformers {version}.
{unbuilt}
```python
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

folder = "PATH OF THIS FOLDER"
model = AutoModelForImageTextToText.from_pretrained(folder{trust})
processor = AutoProcessor.from_pretrained(folder{trust})
processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil"{trust})
```

Give it pictures without transparency, upright, as training did:

```python
from PIL import Image, ImageOps

picture = ImageOps.exif_transpose(Image.open("picture.png")).convert("RGBA")
picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
```
{ask}
## Load it like this, or it sees other pixels

- **Keep the line with `backend="pil"`.** Where torchvision is installed, transformers prepares images with another
  class by default, whose pixels are not those that the model was trained on. No file in this folder can choose the
  class. Give `pipeline("image-text-to-text", model=model, processor=processor)` this processor, too.
- **Composite transparent images on white**, as training did and the code above does. `load_image` of transformers,
  which processors and pipelines use for paths and addresses, drops transparency and shows what lies under it.
- **Take transformers 5.** Version 4 refuses the tokenizer ("Tokenizer class TokenizersBackend does not exist"). It may
  still read the model, with no more than a warning that weights were newly initialized: then the model is not this
  one, and its answers are worthless.
"""

ASK = """
Ask it:

```python
content = [{"type": "image"}, {"type": "text", "text": "What colour is it?"}]
text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(images=picture, text=text, return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=32, do_sample=False)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
```
"""

VIDEO = """\
- **Install torchvision**, of torch's own build: `AutoProcessor` makes a video processor as well, which wants it.
  `AutoImageProcessor` and `AutoTokenizer` need no torchvision.
"""

UNBUILT = """
**The run was not built to its end when this model was trained**: a changed recipe or a takedown was under way, so the
model may have seen what the run holds no longer. Build the run to its end; `vlmill train` then trains the stage again
if its mixture has changed.
"""

CODE = """\
- **`trust_remote_code=True` runs code**: the Python files in this folder, with what transformers' own classes lack.
"""


def write_readme(kind: str, version: str, *, asked: bool, code: bool, video: bool, unbuilt: bool = False) -> str:
    """The text of README.md.

    Args:
        kind: the model's class.
        version: of transformers, that writes the folder.
        asked: whether its processor has a chat template.
        code: whether the folder brings code along.
        video: whether its processor makes a video processor, too.
        unbuilt: whether the run that it was trained on was not built to its end.
    """
    trust = ", trust_remote_code=True" if code else ""
    text = TEXT.format(kind=kind, version=version, trust=trust, ask=ASK * asked, unbuilt=UNBUILT * unbuilt)
    return text + VIDEO * video + CODE * code
