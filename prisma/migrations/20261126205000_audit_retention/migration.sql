-- What retention takes from the audit trail, as functions of the owner, so that the role that the server works as needs
-- neither DELETE nor UPDATE on it. They do no more than the triggers of the table allow to anybody, and leave what is
-- younger than a day, the shortest retention that can be set, wherever the anchor of its chain is. Only a role that is
-- granted them may call them. The search path names temporary tables last, so that none can take a table's place.
-- Semicolons within functions are written as \073, see the migration of the audit trail.
DO E'
BEGIN
  EXECUTE format(''
    CREATE FUNCTION prune_audit_events(most integer) RETURNS integer LANGUAGE sql SECURITY DEFINER
    SET search_path = %I, pg_temp AS $body$
      WITH removed AS (
        DELETE FROM audit_event WHERE (chain_id, sequence) IN (
          SELECT e.chain_id, e.sequence FROM audit_chain c
          CROSS JOIN LATERAL (SELECT chain_id, sequence FROM audit_event
            WHERE chain_id = c.id AND sequence <= c.anchor_sequence AND recorded_at < now() - interval ''''1 day''''
            ORDER BY sequence LIMIT most) e
          LIMIT most) RETURNING 1)
      SELECT count(*)::integer FROM removed
    $body$'', current_schema())\073
  EXECUTE format(''
    CREATE FUNCTION erase_audit_details(chain uuid, most integer) RETURNS integer LANGUAGE sql SECURITY DEFINER
    SET search_path = %I, pg_temp AS $body$
      WITH erased AS (
        UPDATE audit_event SET external_user_id = NULL, client_address = NULL, detail_salt = NULL
        WHERE chain_id = chain AND sequence IN (
          SELECT sequence FROM audit_event WHERE chain_id = chain AND detail_salt IS NOT NULL LIMIT most)
        RETURNING 1)
      SELECT count(*)::integer FROM erased
    $body$'', current_schema())\073
END ';

REVOKE ALL ON FUNCTION prune_audit_events(integer), erase_audit_details(uuid, integer) FROM PUBLIC;
