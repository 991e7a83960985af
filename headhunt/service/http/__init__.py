"""The HTTP interface: application, routes, guard, the dashboard behind it."""
