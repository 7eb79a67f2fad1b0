-- CreateEnum
CREATE TYPE "Provider" AS ENUM ('ZOOM');

-- CreateEnum
CREATE TYPE "ProviderAppKind" AS ENUM ('USER_MANAGED', 'ADMIN_MANAGED', 'SERVER_TO_SERVER');

-- CreateEnum
CREATE TYPE "ProviderEnvironment" AS ENUM ('COMMERCIAL', 'GOVERNMENT');

-- CreateEnum
CREATE TYPE "GrantKind" AS ENUM ('INSTALLATION', 'USER_CONNECTION');

-- CreateEnum
CREATE TYPE "HealthStatus" AS ENUM ('HEALTHY', 'DEGRADED', 'REAUTHORIZATION_REQUIRED', 'REVOKED');

-- CreateEnum
CREATE TYPE "HealthReason" AS ENUM ('CONNECTED', 'RECOVERED', 'PROVIDER_UNAVAILABLE', 'RATE_LIMITED', 'APP_REJECTED', 'SCOPES_MISSING', 'GRANT_REJECTED', 'GRANT_EXPIRED', 'ROTATION_LOST', 'SUPERSEDED', 'PROVIDER_USER_REMOVED', 'DISABLED_BY_ADMIN', 'DEAUTHORIZED_AT_PROVIDER', 'DISCONNECTED');

-- CreateEnum
CREATE TYPE "RefreshState" AS ENUM ('IDLE', 'REFRESHING', 'IN_DOUBT');

-- CreateEnum
CREATE TYPE "AuthorizationStatus" AS ENUM ('PENDING', 'AWAITING_COMPLETION', 'COMPLETED', 'FAILED', 'EXPIRED');

-- CreateEnum
CREATE TYPE "AuthorizationFailure" AS ENUM ('DENIED_BY_USER', 'BROWSER_MISMATCH', 'INITIATOR_MISMATCH', 'ACCOUNT_MISMATCH', 'IDENTITY_CHANGED', 'CODE_REJECTED', 'PROVIDER_UNAVAILABLE');

-- CreateTable
CREATE TABLE "root_key" (
    "id" TEXT NOT NULL,
    "check_value" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "root_key_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "tenant_key" (
    "id" UUID NOT NULL,
    "tenant_id" UUID,
    "owner" TEXT NOT NULL,
    "version" INTEGER NOT NULL,
    "active" BOOLEAN NOT NULL,
    "root_key_id" TEXT NOT NULL,
    "wrapped" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tenant_key_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "tenant" (
    "id" UUID NOT NULL,
    "external_id" TEXT NOT NULL,
    "name" TEXT,
    "allowed_origins" TEXT[],
    "event_sequence" INTEGER NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tenant_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "provider_app" (
    "id" UUID NOT NULL,
    "key" TEXT NOT NULL,
    "provider" "Provider" NOT NULL,
    "name" TEXT NOT NULL,
    "kind" "ProviderAppKind" NOT NULL,
    "environment" "ProviderEnvironment" NOT NULL,
    "client_id" TEXT NOT NULL,
    "secret_version" INTEGER NOT NULL,
    "sealed_client_secret" BYTEA NOT NULL,
    "sealed_former_client_secret" BYTEA,
    "former_client_secret_retires_at" TIMESTAMPTZ(3),
    "client_secret_set_at" TIMESTAMPTZ(3) NOT NULL,
    "sealed_webhook_secret" BYTEA,
    "sealed_former_webhook_secret" BYTEA,
    "former_webhook_secret_retires_at" TIMESTAMPTZ(3),
    "webhook_secret_set_at" TIMESTAMPTZ(3),
    "setup_url" TEXT,
    "webhook_validated_at" TIMESTAMPTZ(3),
    "required_scopes" TEXT[],
    "optional_scopes" TEXT[],
    "incident_reason" "HealthReason",
    "incident_since" TIMESTAMPTZ(3),
    "incident_retry_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "provider_app_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "provider_grant" (
    "id" UUID NOT NULL,
    "kind" "GrantKind" NOT NULL,
    "tenant_id" UUID NOT NULL,
    "app_id" UUID NOT NULL,
    "subject" TEXT NOT NULL,
    "external_user_id" TEXT,
    "provider_account_id" TEXT NOT NULL,
    "provider_user_id" TEXT,
    "provider_user_email" TEXT,
    "provider_user_name" TEXT,
    "granted_scopes" TEXT[],
    "missing_scopes" TEXT[],
    "health_status" "HealthStatus" NOT NULL,
    "health_reason" "HealthReason" NOT NULL,
    "health_since" TIMESTAMPTZ(3) NOT NULL,
    "health_checked_at" TIMESTAMPTZ(3),
    "former_version" INTEGER NOT NULL DEFAULT 0,
    "authorized_at" TIMESTAMPTZ(3) NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "provider_grant_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "credential" (
    "grant_id" UUID NOT NULL,
    "tenant_id" UUID NOT NULL,
    "app_id" UUID NOT NULL,
    "version" INTEGER NOT NULL,
    "sealed_access_token" BYTEA NOT NULL,
    "sealed_refresh_token" BYTEA,
    "key_version" INTEGER NOT NULL,
    "scopes" TEXT[],
    "api_url" TEXT NOT NULL,
    "issued_at" TIMESTAMPTZ(3) NOT NULL,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "refresh_expires_at" TIMESTAMPTZ(3),
    "last_refreshed_at" TIMESTAMPTZ(3),
    "next_refresh_at" TIMESTAMPTZ(3),
    "next_probe_at" TIMESTAMPTZ(3),
    "on_trial" BOOLEAN NOT NULL DEFAULT false,
    "refresh_state" "RefreshState" NOT NULL DEFAULT 'IDLE',
    "fence" INTEGER NOT NULL DEFAULT 0,
    "lease_until" TIMESTAMPTZ(3),
    "failures" INTEGER NOT NULL DEFAULT 0,
    "failure_reason" "HealthReason",
    "retry_at" TIMESTAMPTZ(3),

    CONSTRAINT "credential_pkey" PRIMARY KEY ("grant_id")
);

-- CreateTable
CREATE TABLE "refresh_pace" (
    "app_id" UUID NOT NULL,
    "paced_until" TIMESTAMPTZ(6) NOT NULL,

    CONSTRAINT "refresh_pace_pkey" PRIMARY KEY ("app_id")
);

-- CreateTable
CREATE TABLE "authorization_session" (
    "id" UUID NOT NULL,
    "tenant_id" UUID NOT NULL,
    "app_id" UUID NOT NULL,
    "grant_kind" "GrantKind" NOT NULL,
    "external_user_id" TEXT NOT NULL,
    "return_to" TEXT,
    "allow_identity_change" BOOLEAN NOT NULL,
    "redirect_uri" TEXT NOT NULL,
    "status" "AuthorizationStatus" NOT NULL,
    "failure" "AuthorizationFailure",
    "state_hash" BYTEA,
    "browser_hash" BYTEA,
    "sealed_code_verifier" BYTEA,
    "sealed_code" BYTEA,
    "connect_code_hash" BYTEA,
    "grant_id" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "authorization_session_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "health_event" (
    "id" UUID NOT NULL,
    "tenant_id" UUID NOT NULL,
    "grant_id" UUID,
    "sequence" INTEGER NOT NULL,
    "position" BIGINT,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "previous" "HealthStatus",
    "current" "HealthStatus" NOT NULL,
    "reason" "HealthReason" NOT NULL,

    CONSTRAINT "health_event_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "provider_revocation" (
    "id" UUID NOT NULL,
    "tenant_id" UUID NOT NULL,
    "app_id" UUID NOT NULL,
    "sealed_token" BYTEA NOT NULL,
    "key_version" INTEGER NOT NULL,
    "attempts" INTEGER NOT NULL DEFAULT 0,
    "next_attempt_at" TIMESTAMPTZ(3) NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "provider_revocation_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "webhook_event" (
    "id" UUID NOT NULL,
    "app_id" UUID NOT NULL,
    "dedupe_hash" BYTEA NOT NULL,
    "name" TEXT NOT NULL,
    "received_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "webhook_event_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "tenant_key_tenant_id_idx" ON "tenant_key"("tenant_id");

-- CreateIndex
CREATE UNIQUE INDEX "tenant_key_owner_version_key" ON "tenant_key"("owner", "version");

-- CreateIndex
CREATE UNIQUE INDEX "tenant_external_id_key" ON "tenant"("external_id");

-- CreateIndex
CREATE INDEX "tenant_created_at_id_idx" ON "tenant"("created_at", "id");

-- CreateIndex
CREATE UNIQUE INDEX "provider_app_key_key" ON "provider_app"("key");

-- CreateIndex
CREATE INDEX "provider_app_created_at_id_idx" ON "provider_app"("created_at", "id");

-- CreateIndex
CREATE UNIQUE INDEX "provider_app_provider_environment_client_id_key" ON "provider_app"("provider", "environment", "client_id");

-- CreateIndex
CREATE INDEX "provider_grant_tenant_id_kind_external_user_id_idx" ON "provider_grant"("tenant_id", "kind", "external_user_id");

-- CreateIndex
CREATE INDEX "provider_grant_app_id_provider_user_id_idx" ON "provider_grant"("app_id", "provider_user_id");

-- CreateIndex
CREATE INDEX "provider_grant_app_id_provider_account_id_idx" ON "provider_grant"("app_id", "provider_account_id");

-- CreateIndex
CREATE INDEX "provider_grant_tenant_id_provider_account_id_idx" ON "provider_grant"("tenant_id", "provider_account_id");

-- CreateIndex
CREATE INDEX "provider_grant_created_at_id_idx" ON "provider_grant"("created_at", "id");

-- CreateIndex
CREATE UNIQUE INDEX "provider_grant_tenant_id_app_id_subject_key" ON "provider_grant"("tenant_id", "app_id", "subject");

-- CreateIndex
CREATE INDEX "credential_app_id_next_refresh_at_idx" ON "credential"("app_id", "next_refresh_at");

-- CreateIndex
CREATE INDEX "credential_next_probe_at_idx" ON "credential"("next_probe_at");

-- CreateIndex
CREATE UNIQUE INDEX "authorization_session_state_hash_key" ON "authorization_session"("state_hash");

-- CreateIndex
CREATE UNIQUE INDEX "authorization_session_connect_code_hash_key" ON "authorization_session"("connect_code_hash");

-- CreateIndex
CREATE INDEX "authorization_session_tenant_id_idx" ON "authorization_session"("tenant_id");

-- CreateIndex
CREATE INDEX "authorization_session_app_id_idx" ON "authorization_session"("app_id");

-- CreateIndex
CREATE INDEX "authorization_session_grant_id_idx" ON "authorization_session"("grant_id");

-- CreateIndex
CREATE INDEX "authorization_session_expires_at_idx" ON "authorization_session"("expires_at");

-- CreateIndex
CREATE UNIQUE INDEX "health_event_position_key" ON "health_event"("position");

-- CreateIndex
CREATE INDEX "health_event_tenant_id_position_idx" ON "health_event"("tenant_id", "position");

-- CreateIndex
CREATE INDEX "health_event_grant_id_position_idx" ON "health_event"("grant_id", "position");

-- CreateIndex
CREATE UNIQUE INDEX "health_event_tenant_id_sequence_key" ON "health_event"("tenant_id", "sequence");

-- CreateIndex
CREATE INDEX "provider_revocation_next_attempt_at_idx" ON "provider_revocation"("next_attempt_at");

-- CreateIndex
CREATE INDEX "provider_revocation_app_id_idx" ON "provider_revocation"("app_id");

-- CreateIndex
CREATE INDEX "provider_revocation_tenant_id_idx" ON "provider_revocation"("tenant_id");

-- CreateIndex
CREATE INDEX "webhook_event_received_at_idx" ON "webhook_event"("received_at");

-- CreateIndex
CREATE UNIQUE INDEX "webhook_event_app_id_dedupe_hash_key" ON "webhook_event"("app_id", "dedupe_hash");

-- AddForeignKey
ALTER TABLE "tenant_key" ADD CONSTRAINT "tenant_key_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "provider_grant" ADD CONSTRAINT "provider_grant_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "provider_grant" ADD CONSTRAINT "provider_grant_app_id_fkey" FOREIGN KEY ("app_id") REFERENCES "provider_app"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "credential" ADD CONSTRAINT "credential_grant_id_fkey" FOREIGN KEY ("grant_id") REFERENCES "provider_grant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "refresh_pace" ADD CONSTRAINT "refresh_pace_app_id_fkey" FOREIGN KEY ("app_id") REFERENCES "provider_app"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "authorization_session" ADD CONSTRAINT "authorization_session_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "authorization_session" ADD CONSTRAINT "authorization_session_app_id_fkey" FOREIGN KEY ("app_id") REFERENCES "provider_app"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "authorization_session" ADD CONSTRAINT "authorization_session_grant_id_fkey" FOREIGN KEY ("grant_id") REFERENCES "provider_grant"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "health_event" ADD CONSTRAINT "health_event_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "health_event" ADD CONSTRAINT "health_event_grant_id_fkey" FOREIGN KEY ("grant_id") REFERENCES "provider_grant"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "provider_revocation" ADD CONSTRAINT "provider_revocation_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "provider_revocation" ADD CONSTRAINT "provider_revocation_app_id_fkey" FOREIGN KEY ("app_id") REFERENCES "provider_app"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "webhook_event" ADD CONSTRAINT "webhook_event_app_id_fkey" FOREIGN KEY ("app_id") REFERENCES "provider_app"("id") ON DELETE CASCADE ON UPDATE CASCADE;
