"""METALIC: learning from task to task which interface conditions to use, by contextual bandits."""
