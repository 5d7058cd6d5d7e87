package chattest

import "time"

// SetPatience sets how long the suites wait for something that does not come.
func SetPatience(d time.Duration) { patience = d }
