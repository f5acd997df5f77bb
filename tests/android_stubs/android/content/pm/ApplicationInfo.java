// A stand-in, not Android's: where the app's native libraries lie, which a property says.
package android.content.pm;

public class ApplicationInfo {
    public String nativeLibraryDir = System.getProperty("edgevit.libraries", "/nowhere");
}
