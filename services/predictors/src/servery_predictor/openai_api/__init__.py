"""OpenAI's protocol over every model that generates, chats, embeds, ranks or writes down speech (``servery_sdk.language``)."""
