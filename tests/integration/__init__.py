"""What only real sockets and real processes can show."""
