// The AI pack with the NPU programs: of its folders model#group_... Google Play gives a phone one.
plugins {
    id("com.android.ai-pack")
}

aiPack {
    packName = "RepVitClassifier_npu" // its folder's name
    dynamicDelivery {
        deliveryType = "install-time" // among the app's assets from its first start on
    }
}
