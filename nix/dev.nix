# `nix run .#dev`: the three services apart, as in the cluster, with a database and a NATS server of their own.
{
  lib,
  caddy,
  coreutils,
  nats-server,
  postgresql,
  process-compose,
  programs,
  writeShellApplication,
  writeText,
}:
let
  ports = {
    browser = 8080;
    todo-app = 13000;
    todo-backend = 13001;
    postgresql = 15432;
    nats = 14222;
    # Of todo-app, todo-backend and broadcaster.
    admin = [
      19090
      19091
      19092
    ];
  };
  local = port: "127.0.0.1:${toString port}";

  # Stands in for the ingress: one origin for the pages and the API.
  ingress = writeText "Caddyfile" ''
    {
      admin off
      auto_https off
      persist_config off
      skip_install_trust
    }
    http://localhost:${toString ports.browser} {
      @api path /todos /todos/*
      reverse_proxy @api ${local ports.todo-backend}
      reverse_proxy ${local ports.todo-app}
    }
  '';

  ready = port: {
    http_get = {
      host = "127.0.0.1";
      inherit port;
      path = "/readyz";
    };
    period_seconds = 1;
    failure_threshold = 60;
  };

  after =
    names:
    lib.genAttrs names (_: {
      condition = "process_healthy";
    });

  service = name: admin: environment: needs: {
    command = lib.getExe programs.native.${name};
    environment = lib.mapAttrsToList (variable: value: "${variable}=${toString value}") (
      {
        POD_NAMESPACE = "dev";
        ADMIN_ADDR = local admin;
        LOG_FORMAT = "pretty";
      }
      // environment
    );
    depends_on = after needs;
    readiness_probe = ready admin;
  };

  processes = writeText "process-compose.json" (
    builtins.toJSON {
      version = "0.5";
      processes = {
        postgresql = {
          command = ''
            initdb --pgdata "$STATE/postgresql" --username dev --auth trust --encoding UTF8 > /dev/null &&
            exec postgres -D "$STATE/postgresql" -k "" -c listen_addresses=127.0.0.1 -p ${toString ports.postgresql}
          '';
          readiness_probe = {
            exec.command = "pg_isready --host 127.0.0.1 --port ${toString ports.postgresql}";
            period_seconds = 1;
            failure_threshold = 60;
          };
          # Fast shutdown: postgres waits for its clients at SIGTERM.
          shutdown.signal = 2;
        };
        nats = {
          command = "exec nats-server --jetstream --store_dir \"$STATE/nats\" --addr 127.0.0.1 --port ${toString ports.nats} --http_port ${toString (ports.nats + 1)}";
          readiness_probe = {
            http_get = {
              host = "127.0.0.1";
              port = ports.nats + 1;
              path = "/healthz";
            };
            period_seconds = 1;
          };
        };
        todo-backend =
          service "todo-backend" (lib.elemAt ports.admin 1)
            {
              LISTEN_ADDR = local ports.todo-backend;
              DATABASE_URL = "postgres://dev@${local ports.postgresql}/postgres";
              NATS_URL = "nats://${local ports.nats}";
              MIGRATE_ON_START = "true";
            }
            [
              "nats"
              "postgresql"
            ];
        broadcaster = service "broadcaster" (lib.elemAt ports.admin 2) {
          NATS_URL = "nats://${local ports.nats}";
          FORWARD_TO_EXTERNAL_SERVICE = "false";
        } [ "nats" ];
        todo-app = service "todo-app" (lib.elemAt ports.admin 0) {
          LISTEN_ADDR = local ports.todo-app;
          TODO_BACKEND_URL = "http://${local ports.todo-backend}";
          CACHE_DIR = "pictures";
        } [ "todo-backend" ];
        ingress = {
          command = "exec caddy run --adapter caddyfile --config ${ingress}";
          depends_on = after [ "todo-app" ];
        };
      };
    }
  );
in
writeShellApplication {
  name = "dev";
  runtimeInputs = [
    caddy
    coreutils
    nats-server
    postgresql
    process-compose
  ];
  text = ''
    STATE=$(mktemp -d)
    trap 'rm -rf "$STATE"' EXIT
    export STATE
    cd "$STATE"
    echo "The todo system will be at http://localhost:${toString ports.browser}; Ctrl-C ends it and removes its data."
    process-compose --config ${processes} --no-server up --tui=false "$@"
  '';
  meta.description = "The three services apart, with a PostgreSQL and a NATS server of their own";
}
