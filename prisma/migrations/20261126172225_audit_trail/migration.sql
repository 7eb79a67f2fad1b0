-- CreateEnum
CREATE TYPE "AuditPrincipalKind" AS ENUM ('SERVER_KEY', 'ADMIN_KEY', 'FRONTEND_SESSION', 'SIGNED_URL', 'PROVIDER', 'SYSTEM');

-- CreateEnum
CREATE TYPE "AuditOutcome" AS ENUM ('DONE', 'REFUSED');

-- CreateTable
CREATE TABLE "audit_key" (
    "id" UUID NOT NULL,
    "sealed_key" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "audit_key_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "audit_chain" (
    "id" UUID NOT NULL,
    "sequence" INTEGER NOT NULL,
    "hash" BYTEA NOT NULL,
    "recorded_at" TIMESTAMPTZ(3) NOT NULL,
    "anchor_sequence" INTEGER NOT NULL,
    "anchor_hash" BYTEA NOT NULL,
    "closed_at" TIMESTAMPTZ(3),
    "seal" BYTEA NOT NULL,

    CONSTRAINT "audit_chain_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "audit_event" (
    "chain_id" UUID NOT NULL,
    "sequence" INTEGER NOT NULL,
    "recorded_at" TIMESTAMPTZ(3) NOT NULL,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL,
    "last_occurred_at" TIMESTAMPTZ(3) NOT NULL,
    "action" TEXT NOT NULL,
    "outcome" "AuditOutcome" NOT NULL,
    "principal_kind" "AuditPrincipalKind" NOT NULL,
    "principal_id" TEXT NOT NULL,
    "subject" TEXT,
    "grant_id" UUID,
    "credential_version" INTEGER,
    "count" INTEGER NOT NULL,
    "reason" TEXT,
    "reference" TEXT,
    "external_user_id" TEXT,
    "client_address" TEXT,
    "detail_salt" BYTEA,
    "detail_digest" BYTEA,
    "hash" BYTEA NOT NULL,

    CONSTRAINT "audit_event_pkey" PRIMARY KEY ("chain_id","sequence")
);

-- CreateIndex
CREATE INDEX "audit_event_recorded_at_chain_id_sequence_idx" ON "audit_event"("recorded_at", "chain_id", "sequence");

-- CreateIndex
CREATE INDEX "audit_event_grant_id_recorded_at_idx" ON "audit_event"("grant_id", "recorded_at");

-- CreateIndex
CREATE INDEX "audit_event_action_recorded_at_idx" ON "audit_event"("action", "recorded_at");

-- The adapter of the embedded database splits a migration at every semicolon, so those within functions are written
-- as \073.

-- Audit events are only added. One may go once its chain has moved its anchor past it, and what it tells about persons
-- may be erased once the chain is closed. Nothing else of it ever changes. SQLSTATE 42501: insufficient_privilege.
CREATE FUNCTION audit_event_guard() RETURNS trigger LANGUAGE plpgsql AS E'
DECLARE
  erasable CONSTANT text[] := ARRAY[''external_user_id'', ''client_address'', ''detail_salt'']\073
BEGIN
  IF TG_OP = ''DELETE'' AND OLD.sequence <= (SELECT anchor_sequence FROM audit_chain WHERE id = OLD.chain_id) THEN
    RETURN OLD\073
  END IF\073
  IF TG_OP = ''UPDATE'' THEN
    IF to_jsonb(NEW) - erasable = to_jsonb(OLD) - erasable
      AND NEW.external_user_id IS NULL AND NEW.client_address IS NULL AND NEW.detail_salt IS NULL
      AND (SELECT closed_at IS NOT NULL FROM audit_chain WHERE id = OLD.chain_id)
    THEN
      RETURN NEW\073
    END IF\073
  END IF\073
  RAISE EXCEPTION ''audit events are append-only'' USING ERRCODE = ''42501''\073
END ';

CREATE TRIGGER audit_event_append_only BEFORE UPDATE OR DELETE ON "audit_event"
  FOR EACH ROW EXECUTE FUNCTION audit_event_guard();

-- A chain only grows, its anchor only moves on, and once closed it stays so.
CREATE FUNCTION audit_chain_guard() RETURNS trigger LANGUAGE plpgsql AS E'
BEGIN
  IF TG_OP = ''UPDATE'' THEN
    IF NEW.id = OLD.id AND NEW.sequence >= OLD.sequence AND NEW.anchor_sequence >= OLD.anchor_sequence
      AND NEW.anchor_sequence <= NEW.sequence AND (OLD.closed_at IS NULL OR NEW.closed_at = OLD.closed_at)
    THEN
      RETURN NEW\073
    END IF\073
  END IF\073
  RAISE EXCEPTION ''an audit chain only grows'' USING ERRCODE = ''42501''\073
END ';

CREATE TRIGGER audit_chain_only_grows BEFORE UPDATE OR DELETE ON "audit_chain"
  FOR EACH ROW EXECUTE FUNCTION audit_chain_guard();

CREATE FUNCTION audit_truncate_guard() RETURNS trigger LANGUAGE plpgsql AS E'
BEGIN
  RAISE EXCEPTION ''the audit trail is append-only'' USING ERRCODE = ''42501''\073
END ';

CREATE TRIGGER audit_event_not_truncated BEFORE TRUNCATE ON "audit_event"
  FOR EACH STATEMENT EXECUTE FUNCTION audit_truncate_guard();
CREATE TRIGGER audit_chain_not_truncated BEFORE TRUNCATE ON "audit_chain"
  FOR EACH STATEMENT EXECUTE FUNCTION audit_truncate_guard();
