-- AlterTable
ALTER TABLE "provider_revocation" ADD COLUMN     "grant_id" UUID;

-- CreateTable
CREATE TABLE "revocation" (
    "id" UUID NOT NULL,
    "requested_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "total" INTEGER NOT NULL,

    CONSTRAINT "revocation_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "revocation_receipt" (
    "id" UUID NOT NULL,
    "revocation_id" UUID NOT NULL,
    "grant_id" UUID,
    "ended_at" TIMESTAMPTZ(3),
    "confirmed_at" TIMESTAMPTZ(3),

    CONSTRAINT "revocation_receipt_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "revocation_receipt_revocation_id_id_idx" ON "revocation_receipt"("revocation_id", "id");

-- CreateIndex
CREATE INDEX "revocation_receipt_grant_id_idx" ON "revocation_receipt"("grant_id");

-- CreateIndex
CREATE INDEX "provider_revocation_grant_id_idx" ON "provider_revocation"("grant_id");

-- AddForeignKey
ALTER TABLE "provider_revocation" ADD CONSTRAINT "provider_revocation_grant_id_fkey" FOREIGN KEY ("grant_id") REFERENCES "provider_grant"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "revocation_receipt" ADD CONSTRAINT "revocation_receipt_revocation_id_fkey" FOREIGN KEY ("revocation_id") REFERENCES "revocation"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "revocation_receipt" ADD CONSTRAINT "revocation_receipt_grant_id_fkey" FOREIGN KEY ("grant_id") REFERENCES "provider_grant"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- What is still to be ended on our side, which is nearly always nothing.
CREATE INDEX "revocation_receipt_unended_idx" ON "revocation_receipt"("revocation_id", "id") WHERE "ended_at" IS NULL;
