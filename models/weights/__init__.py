"""Files with weights, ours and other people's: opened without running code from them, found, named and compared."""
