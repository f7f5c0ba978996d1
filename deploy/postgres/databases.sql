-- Run once, by the image of PostgreSQL, on an empty volume. Three databases on one server, for each of the three keeps
-- its version in a table of the same name. The first, heimdall, is made by POSTGRES_DB.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
