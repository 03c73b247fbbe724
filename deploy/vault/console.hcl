# What an administrator may do, on the page or with `pillion credential`: create,
# edit and remove credentials, and write secrets and grants that can never be read
# back; metadata tells that they are there, and of which version. Access tokens
# (tokens/) cannot be read either, only removed with their credential: how they stand
# is in states/.
#
# One rule a line: policy.sh makes narrower ones of them.

path "pillion/data/index"             { capabilities = ["create", "read", "update"] }
path "pillion/data/sweep"             { capabilities = ["create", "read", "update"] }
path "pillion/data/credentials/*"     { capabilities = ["create", "read", "update", "patch"] }
path "pillion/data/secrets/*"         { capabilities = ["create", "update", "patch"] }
path "pillion/data/grants/*"          { capabilities = ["create", "update", "patch"] }
path "pillion/data/requests/*"        { capabilities = ["create", "read", "update", "patch"] }
path "pillion/data/consents/*"        { capabilities = ["create", "read", "update"] }
path "pillion/data/states/*"          { capabilities = ["read"] }
path "pillion/metadata/credentials/"  { capabilities = ["list"] }
path "pillion/metadata/credentials/*" { capabilities = ["read", "patch", "delete"] }
path "pillion/metadata/secrets/*"     { capabilities = ["read", "delete"] }
path "pillion/metadata/grants/*"      { capabilities = ["read", "delete"] }
path "pillion/metadata/tokens/*"      { capabilities = ["read", "delete"] }
path "pillion/metadata/requests/*"    { capabilities = ["read", "delete"] }
path "pillion/metadata/consents/*"    { capabilities = ["read", "delete"] }
path "pillion/metadata/states/*"      { capabilities = ["read", "delete"] }

# Of itself: how long the token lives, and what it may do (pillion check --online; the
# page keeps what it listed only while the answer to the last one is the same).
path "auth/token/lookup-self"         { capabilities = ["read"] }
path "sys/capabilities-self"          { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl"  { capabilities = ["read"] }
