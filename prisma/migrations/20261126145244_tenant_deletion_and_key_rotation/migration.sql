-- DropIndex
DROP INDEX "tenant_key_tenant_id_idx";

-- AlterTable
ALTER TABLE "provider_revocation" ADD COLUMN     "former_grant_id" UUID,
ALTER COLUMN "tenant_id" DROP NOT NULL;

-- AlterTable
ALTER TABLE "revocation_receipt" ADD COLUMN     "former_grant_id" UUID;

-- AlterTable
ALTER TABLE "tenant" ADD COLUMN     "closed_at" TIMESTAMPTZ(3);

-- AlterTable
ALTER TABLE "tenant_key" ADD COLUMN     "superseded_at" TIMESTAMPTZ(3),
ADD COLUMN     "unreferenced_since" TIMESTAMPTZ(3);

-- CreateTable
CREATE TABLE "tenant_deletion" (
    "id" UUID NOT NULL,
    "tenant_id" UUID NOT NULL,
    "tenant_external_id" TEXT NOT NULL,
    "revocation_id" UUID NOT NULL,
    "requested_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "keys_destroyed_at" TIMESTAMPTZ(3),
    "completed_at" TIMESTAMPTZ(3),

    CONSTRAINT "tenant_deletion_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "tenant_deletion_tenant_id_key" ON "tenant_deletion"("tenant_id");

-- CreateIndex
CREATE UNIQUE INDEX "tenant_deletion_revocation_id_key" ON "tenant_deletion"("revocation_id");

-- CreateIndex
CREATE INDEX "tenant_deletion_keys_destroyed_at_idx" ON "tenant_deletion"("keys_destroyed_at");

-- CreateIndex
CREATE INDEX "credential_tenant_id_key_version_idx" ON "credential"("tenant_id", "key_version");

-- CreateIndex
CREATE INDEX "provider_revocation_former_grant_id_idx" ON "provider_revocation"("former_grant_id");

-- CreateIndex
CREATE INDEX "revocation_receipt_former_grant_id_idx" ON "revocation_receipt"("former_grant_id");

-- CreateIndex
CREATE UNIQUE INDEX "tenant_key_tenant_id_version_key" ON "tenant_key"("tenant_id", "version");

-- AddForeignKey
ALTER TABLE "credential" ADD CONSTRAINT "credential_tenant_id_key_version_fkey" FOREIGN KEY ("tenant_id", "key_version") REFERENCES "tenant_key"("tenant_id", "version") ON DELETE NO ACTION ON UPDATE NO ACTION;

-- AddForeignKey
ALTER TABLE "provider_revocation" ADD CONSTRAINT "provider_revocation_tenant_id_key_version_fkey" FOREIGN KEY ("tenant_id", "key_version") REFERENCES "tenant_key"("tenant_id", "version") ON DELETE NO ACTION ON UPDATE NO ACTION;

-- AddForeignKey
ALTER TABLE "url_signing_key" ADD CONSTRAINT "url_signing_key_tenant_id_key_version_fkey" FOREIGN KEY ("tenant_id", "key_version") REFERENCES "tenant_key"("tenant_id", "version") ON DELETE NO ACTION ON UPDATE NO ACTION;

-- AddForeignKey
ALTER TABLE "tenant_deletion" ADD CONSTRAINT "tenant_deletion_revocation_id_fkey" FOREIGN KEY ("revocation_id") REFERENCES "revocation"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- However many processes rotate a key at once, one version of each owner is active.
CREATE UNIQUE INDEX "tenant_key_active_key" ON "tenant_key"("owner") WHERE "active";

-- What is to be re-sealed or destroyed, which is nearly always nothing.
CREATE INDEX "tenant_key_superseded_idx" ON "tenant_key"("owner") WHERE NOT "active";
