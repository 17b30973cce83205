"""The edges to frameworks, one module each; nothing else imports a framework."""
