from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"
