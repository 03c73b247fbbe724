package token

import "testing"

// TestAttackRecords are the cases of docs/attacks.md about tokens that lie in records,
// by their number. Those of a token that one process keeps stand with cache and Keeper;
// lies_test.go has the lies of token endpoints.
func TestAttackRecords(t *testing.T) {
	for _, attack := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"28 ten processes that each have a refresher make one token call", manyRefreshersOneTokenCall},
		{"28 many processes, one token call a rotation", renewInManyProcesses},
		{"28 many callers, in one process and over many, one token call", manyCallersOneTokenCall},
		{"29 who asked first leaves, what it asked for is stored", renewWhenItsCallerLeaves},
		{"29 the first caller of a reader leaves, the others are served", theFirstCallerOfAReaderLeaves},
		{"30 one forced refresh in half a minute, none where somebody was faster", renewRefused},
		{"32 a process dies at any step, and is started again", deathAtEveryStep},
		{"32 a process dies at any step, and another takes over", deathAndReplacement},
		{"32 an answer that brings the next refresh token alone", refreshTokenAlone},
		{"32 Vault loses every answer to the first writes", vaultAwayForTheAnswer},
		{"33 invalid_grant after somebody was faster: theirs is used", renewAdopts},
		{"33 Vault loses one answer in five to writes of many processes", vaultLosesAnswers},
		{"34 what is deleted during a request stays deleted", renewOfADeletedCredential},
		{"34 a credential removed while readers wait stays removed", aRemovedCredentialIsNotBroughtBack},
		{"35 a request whose outcome is unclear", renewUnknownOutcome},
		{"35 readers while the provider is down", aReaderWhileTheProviderIsDown},
		{"38 no event and no error holds a secret", renewalsTellNoSecret},
		{"39 an edit is what a reader's next request carries", anEditedCredentialOfAReader},
		{"40 all processes together ask a provider in trouble ever less", renewBacksOff},
		{"40 however many ask in a process", aFailingEndpointInTheProcess},
	} {
		t.Run(attack.name, attack.run)
	}
}
