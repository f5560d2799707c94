"""The page: a thin face over ``studio.core`` made of Gradio components, our own style and a guard in front."""
