"""OpenAI's Responses API, as its clients write and read it; nothing is stored."""
