# What a refresher may do: keep grants and tokens, answer requests, test any
# credential, and repair the index. It never changes a credential or its secrets.
#
# One rule a line: policy.sh makes narrower ones of them.

path "pillion/data/index"             { capabilities = ["create", "read", "update"] }
path "pillion/data/sweep"             { capabilities = ["create", "read", "update"] }
path "pillion/data/credentials/*"     { capabilities = ["read"] }
path "pillion/data/secrets/*"         { capabilities = ["read"] }
path "pillion/data/grants/*"          { capabilities = ["create", "read", "update", "patch"] }
path "pillion/data/tokens/*"          { capabilities = ["create", "read", "update", "patch"] }
path "pillion/data/states/*"          { capabilities = ["create", "read", "update"] }
path "pillion/data/requests/*"        { capabilities = ["create", "read", "update", "patch"] }
path "pillion/metadata/credentials/"  { capabilities = ["list"] }
path "pillion/metadata/grants/*"      { capabilities = ["read"] }
path "pillion/metadata/tokens/*"      { capabilities = ["read"] }
path "pillion/metadata/requests/"     { capabilities = ["list"] }
path "pillion/metadata/requests/*"    { capabilities = ["read", "delete"] }

# Of itself: how long the token lives, and what it may do (pillion check --online).
path "auth/token/lookup-self"         { capabilities = ["read"] }
path "sys/capabilities-self"          { capabilities = ["update"] }
