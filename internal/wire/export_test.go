package wire

// PlainCommand and StrictCommand are the two ways in which ParseCommand reads.
func PlainCommand(text []byte) (Command, bool) { return plainCommand(text) }

func StrictCommand(text []byte) (c Command, err error) {
	err = decodeStrict(text, &c)
	return c, err
}
