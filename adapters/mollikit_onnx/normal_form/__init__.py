"""What any model is brought to before it is differentiated: inlined, of known versions, shapes told."""
