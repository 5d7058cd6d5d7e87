package chattest

import "time"

// SetPatience has the suites wait less for what will not come.
func SetPatience(d time.Duration) { patience = d }
