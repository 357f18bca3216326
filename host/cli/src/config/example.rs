//! The commented file that `backstay init` writes.

/// A configuration that parses as it stands, with the keys that most need explained.
/// The reference in `docs/src/reference/configuration.md` quotes it whole.
pub(crate) const EXAMPLE: &str = r#"# Backstay's configuration. Unknown keys are errors.
# Relative paths start from this file's folder.

# A repository: where backups and logs go. Any number of them, each under its own name.
[repositories.main]
# A folder (file:///absolute/path, or a path), or a place on a store: s3://bucket/prefix, gs://bucket/prefix,
# az://container/prefix, https://host/path (WebDAV).
url = "file:///var/lib/backstay/repo"
# The password that opens the repository: a file (mode 600, a newline at its end is dropped) ...
password-file = "/etc/backstay/password"
# ... or a program that prints it, run without a shell.
# password-command = ["pass", "show", "backstay/main"]
# No more than so many bytes a second:
# upload-limit = "50 MiB"
# download-limit = "200 MiB"

# Amazon S3 and stores that speak like it.
# [repositories.s3]
# url = "s3://bucket/prefix"
# password-file = "/etc/backstay/password"
# region = "eu-central-1"
# endpoint = "https://s3.example.com"      # a store that is not Amazon's
# path-style = true                        # bucket in the path, not in the host name
# allow-http = false                       # true lets an endpoint without TLS through
# ca-file = "/etc/backstay/ca.pem"         # who signed the store's certificate, beside those the machine trusts
# access-key-id = "AKIAEXAMPLE"            # left out: AWS_... variables, then the machine's role; or:
#   profile = "backup"                     # a profile of ~/.aws/credentials and ~/.aws/config
#   role-arn = "arn:aws:iam::1:role/x"     # a role, with the token of a Kubernetes service account:
#   web-identity-token-file = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
# secret-access-key-file = "/etc/backstay/s3.secret"     # or secret-access-key-command
# session-token-file = "/etc/backstay/s3.token"          # only with temporary keys; or session-token-command
# connections = 16                         # requests at the same time, 64 at most
# object-lock-days = 30                    # the bucket keeps every object so long (Object Lock)

# Google Cloud Storage.
# [repositories.google]
# url = "gs://bucket/prefix"
# password-file = "/etc/backstay/password"
# service-account-file = "/etc/backstay/google.json"     # left out: application default credentials, then the machine's

# Azure Blob Storage.
# [repositories.azure]
# url = "az://container/prefix"
# password-file = "/etc/backstay/password"
# account = "mybackups"
# access-key-file = "/etc/backstay/azure.key"            # one of these; none: AZURE_... variables, managed identity
#   sas-token-file = "/etc/backstay/azure.sas"
#   tenant-id = "..."                      # a service principal ...
#   client-id = "..."
#   client-secret-file = "/etc/backstay/azure.secret"
#   federated-token-file = "/var/run/secrets/azure/tokens/azure-identity-token"    # ... or a workload's identity

# WebDAV.
# [repositories.dav]
# url = "https://dav.example.com/backups"
# password-file = "/etc/backstay/password"
# user = "backup"
# user-password-file = "/etc/backstay/dav.password"

# A target: one database instance to protect. Its name is part of the repository: keep it.
[targets.shop]
# The plugin that knows this kind of database: `backstay plugin list`.
engine = "postgresql"
repository = "main"
# Repositories that get a copy of every backup and of the log; while one is away the others go on.
# mirrors = ["s3"]
# The engine's own settings: `backstay plugin show postgresql` lists them.
settings = { sslmode = "prefer" }

# How much the plugin may take; these are the defaults.
# [targets.shop.limits]
# memory-mib = 256
# stall-seconds = 30       # computing without moving a byte
# idle-seconds = 3600      # waiting with nothing moving; not for `archive`
# drain-seconds = 240      # for `archive`, from the request to stop to its end

# How long backups and log stay: what `backstay forget` and `backstay prune` go by. Without it nothing is ever forgotten.
# A backup goes when no rule keeps it; the newest and pinned ones always stay. [retention] at the top is for all targets
# without a section of their own.
[targets.shop.retention]
pitr-window = "7d"         # every moment of the last week that can be restored to stays so
keep-daily = 7             # and keep-last, keep-hourly, keep-weekly, keep-monthly, keep-yearly, keep-within = "1mo"
keep-weekly = 5
time-zone = "UTC"          # where days begin

# What the plugin may reach. What is not granted here does not exist for it.
[targets.shop.grants]
# host:port, [v6]:port or /path/of/a/socket ...
endpoints.primary = "127.0.0.1:5432"
# ... or a table, where TLS needs more:
# endpoints.primary = { address = "db.example.com:5432", server-name = "db", ca-file = "ca.pem", client-cert-file = "client.pem", client-key-file = "client.key" }
# Without a password where the server asks for none; password-command works here too.
credentials.primary = { user = "backup", password-file = "/etc/backstay/shop.password" }
# Folders that a backup may read, programs that it may run:
# directories.data = "/var/lib/postgresql/15/main"
# tools.pg_ctl = "/usr/lib/postgresql/15/bin/pg_ctl"
"#;
