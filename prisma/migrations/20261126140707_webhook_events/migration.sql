-- AlterTable
ALTER TABLE "provider_grant" ADD COLUMN     "provider_user_email_at" TIMESTAMPTZ(3),
ADD COLUMN     "provider_user_name_at" TIMESTAMPTZ(3);

-- CreateTable
CREATE TABLE "deauthorization_receipt" (
    "id" UUID NOT NULL,
    "app_id" UUID NOT NULL,
    "received_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "grants_revoked" INTEGER NOT NULL,
    "purged_at" TIMESTAMPTZ(3),

    CONSTRAINT "deauthorization_receipt_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "deauthorization_receipt_received_at_id_idx" ON "deauthorization_receipt"("received_at", "id");

-- CreateIndex
CREATE INDEX "deauthorization_receipt_app_id_idx" ON "deauthorization_receipt"("app_id");

-- AddForeignKey
ALTER TABLE "deauthorization_receipt" ADD CONSTRAINT "deauthorization_receipt_app_id_fkey" FOREIGN KEY ("app_id") REFERENCES "provider_app"("id") ON DELETE CASCADE ON UPDATE CASCADE;
