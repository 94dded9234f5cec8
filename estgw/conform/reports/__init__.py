"""The same report in four forms: text for a terminal, JSON and JUnit for programs, HTML for people."""
