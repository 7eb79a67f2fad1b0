-- CreateTable
CREATE TABLE "url_signing_key" (
    "tenant_id" UUID NOT NULL,
    "version" INTEGER NOT NULL,
    "sealed_key" BYTEA NOT NULL,
    "key_version" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "url_signing_key_pkey" PRIMARY KEY ("tenant_id")
);

-- AddForeignKey
ALTER TABLE "url_signing_key" ADD CONSTRAINT "url_signing_key_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;
