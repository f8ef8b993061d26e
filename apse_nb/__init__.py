__version__ = "0.1.0"
from .tools import extras, torchvision_guard
