"""OpenAI's protocol over every model that generates, chats, embeds or ranks (``servery_sdk.language``)."""
