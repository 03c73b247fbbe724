# What a sidecar may do: read the credentials, their static secrets and the access
# tokens; tell the refreshers of a refused token. It never reads a client secret
# or a refresh token (grants/), nor what others ask of a refresher (requests/).
#
# One rule a line: policy.sh makes narrower ones of them.

path "pillion/data/index"             { capabilities = ["read"] }
path "pillion/data/sweep"             { capabilities = ["read"] }
path "pillion/data/credentials/*"     { capabilities = ["read"] }
path "pillion/data/secrets/*"         { capabilities = ["read"] }
path "pillion/data/tokens/*"          { capabilities = ["read"] }
path "pillion/data/requests/*"        { capabilities = ["create", "patch"] }
path "pillion/metadata/requests/*"    { capabilities = ["read"] }
path "pillion/metadata/credentials/"  { capabilities = ["list"] }

# Of itself: how long the token lives, and what it may do (pillion check --online).
path "auth/token/lookup-self"         { capabilities = ["read"] }
path "sys/capabilities-self"          { capabilities = ["update"] }
