"""What each provider promises, one file a provider."""
