"""Coordinates in texts: boxes, points and polygons of an image, found, judged, and written anew for each image policy.

Between images and steps: `FindBoxes` (steps/find_boxes.py) reads them, `RenderBoxes` (steps/render_boxes.py) writes
them. To add a form, add an entry to FORMS (forms.py).
"""

from vlmill.pipeline.boxes.forms import FORMS
from vlmill.pipeline.boxes.regions import Region
from vlmill.pipeline.boxes.settings import ModelBoxes, SourceBoxes

__all__ = ["FORMS", "ModelBoxes", "Region", "SourceBoxes"]
