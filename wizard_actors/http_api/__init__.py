"""What other clients send to an HTTP endpoint and read from it: OpenAI's and Anthropic's formats, and ours. Pure."""
