"""The embedded default: what `llm-edge up` starts on one machine, keeps alive, and takes down again."""
