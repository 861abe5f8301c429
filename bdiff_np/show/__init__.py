"""What people see: pictures, and results in words."""
