"""EmojiCIR: a benchmark of composed picture retrieval, built from emoji packages. See README.md."""
