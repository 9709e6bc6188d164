-- Databases for Prefect, for MLflow and for MLflow's users, and the two roles that own them. Runs in a new server, as
-- the role that made it. It may be repeated: then the databases go to these roles, with all that is in them.
\set ON_ERROR_STOP on
\getenv prefect_password PREFECT_DATABASE_PASSWORD
\getenv mlflow_password MLFLOW_DATABASE_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['prefect', 'mlflow']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE prefect PASSWORD :'prefect_password';
ALTER ROLE mlflow PASSWORD :'mlflow_password';

SELECT format('CREATE DATABASE %I', name) FROM unnest(ARRAY['prefect', 'mlflow', 'mlflow_auth']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
ALTER DATABASE prefect OWNER TO prefect;
ALTER DATABASE mlflow OWNER TO mlflow;
ALTER DATABASE mlflow_auth OWNER TO mlflow;
REVOKE ALL ON DATABASE prefect, mlflow, mlflow_auth FROM PUBLIC;

\set to_its_owner 'SELECT format(\'ALTER %s public.%I OWNER TO %I\', kind, name, pg_get_userbyid(datdba)) FROM pg_database, (SELECT \'TABLE\', relname, relowner FROM pg_class WHERE relnamespace = \'public\'::regnamespace AND relkind IN (\'r\', \'p\', \'v\') UNION ALL SELECT \'TYPE\', typname, typowner FROM pg_type WHERE typnamespace = \'public\'::regnamespace AND typtype = \'e\') AS found (kind, name, owner) WHERE datname = current_database() AND owner <> datdba'
\connect mlflow
:to_its_owner \gexec
\connect mlflow_auth
:to_its_owner \gexec
\connect prefect
SET client_min_messages = warning;
:to_its_owner \gexec
CREATE EXTENSION IF NOT EXISTS pg_trgm;
