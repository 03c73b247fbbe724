package creds

// Explanation says which credential a target gets, and why.
type Explanation struct {
	Target        string            `json:"target"`
	Credential    string            `json:"credential,omitempty"`
	InstanceURL   string            `json:"instance_url,omitempty"`
	Authorization AuthorizationType `json:"authorization,omitempty"`
	Reason        string            `json:"reason"`
	Misses        []Miss            `json:"nearest_misses,omitempty"`
	Err           error             `json:"-"` // what Match returned
}

// Miss is a credential that target nearly matches.
type Miss struct {
	Credential  string   `json:"credential"`
	InstanceURL string   `json:"instance_url"`
	Reasons     []string `json:"reasons"`
}

func (t *Table) Explain(target Target) Explanation { return Explanation{} }
