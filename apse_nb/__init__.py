__version__ = "0.1.0"
from .tools import torchvision_guard
