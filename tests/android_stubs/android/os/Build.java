// A stand-in, not Android's: the phone that two properties describe.
package android.os;

public class Build {
    public static final String SOC_MODEL = System.getProperty("edgevit.soc", "unknown");

    public static class VERSION {
        public static final int SDK_INT = Integer.getInteger("edgevit.sdk", 35);
    }
}
