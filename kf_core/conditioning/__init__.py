"""What the user gives becomes what the generator needs."""
