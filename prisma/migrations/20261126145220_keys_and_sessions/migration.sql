-- CreateEnum
CREATE TYPE "Permission" AS ENUM ('CREDENTIALS_READ', 'CONNECTIONS_READ', 'CONNECTIONS_WRITE', 'TENANTS_WRITE', 'PROVIDER_APPS_WRITE', 'SESSIONS_CREATE', 'KEYS_WRITE', 'AUDIT_READ');

-- CreateEnum
CREATE TYPE "FrontendAction" AS ENUM ('CONNECT_INSTALLATION', 'CONNECT_USER', 'READ_CONNECTIONS', 'REVOKE');

-- AlterTable
ALTER TABLE "authorization_session" ADD COLUMN     "frontend_session_id" UUID;

-- CreateTable
CREATE TABLE "server_key" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "key_hash" BYTEA NOT NULL,
    "permissions" "Permission"[],
    "tenant_id" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "last_used_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3),

    CONSTRAINT "server_key_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "frontend_session" (
    "id" UUID NOT NULL,
    "token_hash" BYTEA NOT NULL,
    "tenant_id" UUID NOT NULL,
    "external_user_id" TEXT,
    "actions" "FrontendAction"[],
    "origins" TEXT[],
    "return_to" TEXT,
    "server_key_id" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "frontend_session_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "server_key_tenant_id_idx" ON "server_key"("tenant_id");

-- CreateIndex
CREATE INDEX "server_key_created_at_id_idx" ON "server_key"("created_at", "id");

-- CreateIndex
CREATE INDEX "frontend_session_tenant_id_idx" ON "frontend_session"("tenant_id");

-- CreateIndex
CREATE INDEX "frontend_session_server_key_id_idx" ON "frontend_session"("server_key_id");

-- CreateIndex
CREATE INDEX "frontend_session_expires_at_idx" ON "frontend_session"("expires_at");

-- CreateIndex
CREATE INDEX "tenant_allowed_origins_idx" ON "tenant" USING GIN ("allowed_origins");

-- AddForeignKey
ALTER TABLE "server_key" ADD CONSTRAINT "server_key_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "frontend_session" ADD CONSTRAINT "frontend_session_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "frontend_session" ADD CONSTRAINT "frontend_session_server_key_id_fkey" FOREIGN KEY ("server_key_id") REFERENCES "server_key"("id") ON DELETE CASCADE ON UPDATE CASCADE;
