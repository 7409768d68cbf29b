"""What each conformance suite promises: sound things pass it, broken ones are caught."""
