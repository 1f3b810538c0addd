"""SparseFab: from a trained model and a compression recipe to accuracy, cost and verified Verilog."""

from pathlib import Path

__all__ = ["__version__"]

__version__ = "0.1.0"

# In a checkout the parts of the package are top-level folders, linked here; putting the checkout's root on the
# package's own path lets every tool resolve them to the real folder, so that no file is loaded under two names.
_here = Path(__file__).resolve().parent
if (_here / "hw").is_symlink() or not (_here / "hw").is_dir():
    __path__.insert(0, str(_here.parent))
