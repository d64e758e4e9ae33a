"""What makes a ticket small and takes it elsewhere."""
