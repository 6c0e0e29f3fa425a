package bootstrap

// MaxPrinted is how many texts are remembered at most.
const MaxPrinted = maxPrinted

// Printed is how many texts are remembered.
func Printed() int { return len(printed.texts) }

// Forget forgets all texts.
func Forget() { clear(printed.texts) }
