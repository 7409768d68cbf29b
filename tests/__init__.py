"""What each module promises, one file a module, and what only real sockets and processes can show."""
